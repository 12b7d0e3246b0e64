"""The graph of what an experiment makes: each node's recipe, how it is made, and plans over
them."""
