"""Reinforcement learning by units that each learn from their own local loss.

L_k = Huber(Q_k(s, a), y) + lambda (-I(Y; Z_k) + w I(X; Z_k)): temporal
difference plus PIB, every choice ours. Imports twin only; an environment is
whatever keeps the protocol of `pib.reinforcement.environment`.
"""
