"""How fast, how right, on which machine; so which one do I take?"""
