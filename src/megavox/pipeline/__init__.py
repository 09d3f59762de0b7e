"""The stages in order: new, pack, plan, train, evaluate, predict, measure, report.

Every stage is a function of a `Project`; each does again only what is not done. `megavox.cli` adds
arguments and printing, nothing else.
"""
