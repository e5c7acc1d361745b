"""PostgreSQL's frontend/backend protocol, version 3, sans-IO: bytes in, messages out. Imports nothing of ours.

`startup` is what comes before the first tagged message, `framing` splits the stream, `messages_*` are the messages,
`builders` makes the ones that are sent often, `errors` says what a peer did wrong. Source: PostgreSQL documentation,
chapter "Frontend/Backend Protocol".

Two kinds of strings. What is in the client's encoding (query text, names of statements and portals, column names) is
`bytes`. What the protocol itself reads (parameter names, mechanisms, SQLSTATEs, command tags) is `str`, decoded as
UTF-8 with surrogateescape, so that whatever a peer sent is the same bytes again when it is passed on.
"""
