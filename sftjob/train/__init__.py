"""The training container: a torch-free supervisor that starts ranks, publishes what they save and picks a code."""
