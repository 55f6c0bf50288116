"""Tool servers of a session host: HTTP tools and MCP servers (`actors.stages.tool_servers` has the port).

`open_tool_servers` makes them from the settings. Nothing is connected before a session needs it.
"""
