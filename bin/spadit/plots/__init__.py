"""Figures: functions on AnnData and DataFrames that return a matplotlib ``Figure``; :func:`spadit.plots.style.save` writes it."""
