"""The front door of a stack: a page, an API description, and the answers that concern all of its models.

What is served comes from a file that the program writes. The portal changes nothing, and holds no credentials.
"""
