"""What does a step: one module per stage, `run(spec, inputs, out, context)`.

A stage sees its spec, the store entries of the steps it reads, and the user's files by digest; never
the recipe and never another stage. So nothing can influence an output without being in its key.
"""
