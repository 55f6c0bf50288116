"""Stores of conversations outside the session hosts: journal actors on the nodes, and Redis."""
