"""Pictures with exact edges, made by a seeded command: text, screens, icons, plots, patterns, fine lines.

What a picture is made of lies in packages (assets.py), how it is made in the families: text.py, screens.py, icons.py,
plots.py, diagrams.py, patterns.py, lines.py, and held_out.py, whose families no training picture comes from.
"""
