"""The paper's figures, made again on twins: `pib-twin reproduce FIGURE`."""
