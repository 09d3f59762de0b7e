"""What a person wants to see of a study: curves, tables with intervals, overlays, the worst cases first.

`content` says what a report holds, `page.write_report` writes it as a folder that opens from disk. `search_content` and
`search_page.write_search_report` do so for a search.
"""
