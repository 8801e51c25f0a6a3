"""How many of us are there, and how do we agree? The only code that knows Horovod."""
