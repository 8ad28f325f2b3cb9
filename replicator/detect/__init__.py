"""Where hints come from: kernel events, the periodic sweep, and the quiet time between them.

Decides nothing and moves nothing: a hint only says "look again".
"""
