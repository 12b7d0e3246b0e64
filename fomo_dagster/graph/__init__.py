"""The graph of what an experiment makes: each node's recipe, its making, and plans over them."""
