"""What people read: tables, and the result of an audit as text and as a page of HTML. No I/O.

`audit_result` has the numbers, `timeline` has each token's bar as numbers. `text` and `text_timeline` draw them for a
terminal, `html` and `svg` for a browser. `tables` has tables of tokens.
"""
