"""One run, in a straight line: ``run.py`` reads top to bottom, ``engine.py`` draws the loop."""
