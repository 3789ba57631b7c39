"""What a step is told: one frozen model per stage, pure data, all of it in the step's key.

`plan/x.py` fills a spec from the recipe, `stages/x.py` obeys it. A spec holds no absolute path, host
name, user name or time; the user's files appear by digest.
"""
