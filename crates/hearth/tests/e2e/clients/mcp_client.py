"""The Python package `mcp` against the memory, over both transports and both lifecycles of the protocol.

    python mcp_client.py http://127.0.0.1:8321/mcp HEARTH
"""

import asyncio
import os
import sys

import mcp
from mcp import MCPError, StdioServerParameters
from mcp_types import Implementation, ResourceTemplateReference

URL, HEARTH = sys.argv[1:]
NAME = Implementation(name="the tester", version="1")


def over_http(query=""):
    return URL + query


def over_stdio(*flags):
    # The package hands a program few variables, and this one needs those of its home.
    return StdioServerParameters(command=HEARTH, args=["mcp", *flags], env=dict(os.environ))


def connect(server, mode="auto"):
    return mcp.Client(server, mode=mode, client_info=NAME, read_timeout_seconds=60)


def text(result):
    (content,) = result.content
    return content.text


async def use(server, mode, word):
    """Saves, finds, changes and forgets through one connection; `word` tells it from the others."""
    async with connect(server, mode) as client:
        assert client.server_info.name == "hearth"
        assert "search_memories" in client.instructions
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["search_memories"].annotations.read_only_hint
        assert tools["delete_memory"].annotations.destructive_hint
        arguments = {"text": f"The door of {word} is painted green", "project": word, "tags": ["paint"]}
        added = await client.call_tool("add_memory", arguments)
        # The package holds the result against the tool's output schema.
        assert not added.is_error and added.structured_content["outcome"] == "stored", added
        id = added.structured_content["memory"]["id"]
        assert id in text(added)
        found = await client.call_tool("search_memories", {"query": "green door", "project": word})
        assert [memory["id"] for memory in found.structured_content["memories"]] == [id]
        assert "painted green" in text(found)
        wrong = await client.call_tool("add_memory", {"text": "x", "confidence": 7})
        assert wrong.is_error and "confidence" in text(wrong)
        try:
            await client.call_tool("remember", {})
        except MCPError as error:
            assert "add_memory" in str(error)
        else:
            raise AssertionError("a tool that does not exist was called")
        await client.call_tool("update_memory", {"id": id, "text": f"The door of {word} is painted red"})
        listed = await client.call_tool("list_memories", {"project": word})
        (memory,) = listed.structured_content["memories"]
        assert memory["supersedes"] == [id] and "red" in memory["text"]
        read = await client.read_resource(f"memory://memories/{memory['id']}")
        assert "painted red" in read.contents[0].text
        resources = (await client.list_resources()).resources
        assert any(resource.name == memory["id"] for resource in resources)
        templates = (await client.list_resource_templates()).resource_templates
        reference = ResourceTemplateReference(uri=templates[1].uri_template)
        completed = await client.complete(reference, {"name": "project", "value": word[:3]})
        assert word in completed.completion.values
        stats = await client.call_tool("memory_stats", {})
        assert [word, 1] in stats.structured_content["projects"]
        await client.call_tool("delete_memory", {"id": memory["id"]})
        gone = await client.call_tool("get_memory", {"id": memory["id"]})
        assert gone.is_error and "there is no memory" in text(gone)
        return client.protocol_version


async def http():
    assert await use(over_http(), "auto", "newest") == "2026-07-28"


async def http_with_a_handshake():
    assert await use(over_http(), "legacy", "handshake") == "2025-11-25"


async def stdio():
    assert await use(over_stdio(), "auto", "pipe") == "2026-07-28"


async def stdio_with_a_handshake():
    assert await use(over_stdio(), "legacy", "older") == "2025-11-25"


async def one_memory_behind_both():
    async with connect(over_http("?project=shared")) as door, connect(over_stdio("--project", "shared")) as pipe:
        for saves, finds, colour in [(door, pipe, "blue"), (pipe, door, "white")]:
            added = await saves.call_tool("add_memory", {"text": f"The fence is {colour}"})
            memory = added.structured_content["memory"]
            assert memory["project"] == "shared" and memory["source"] == NAME.name
            found = await finds.call_tool("search_memories", {"query": f"{colour} fence", "limit": 1})
            assert found.structured_content["memories"][0]["id"] == memory["id"]


async def reading_only():
    for server in [over_http("?read_only=true"), over_stdio("--read-only")]:
        async with connect(server) as client:
            assert all(tool.annotations.read_only_hint for tool in (await client.list_tools()).tools)
            try:
                await client.call_tool("add_memory", {"text": "x"})
            except MCPError as error:
                assert "only read" in str(error)
            else:
                raise AssertionError("a session that reads wrote")


async def many_at_once():
    async def one(number, server):
        async with connect(server) as client:
            for turn in range(5):
                fact = f"Fact {turn} of client {number}: " + "abcdefgh"[number] * (turn + 3)
                added = await client.call_tool("add_memory", {"text": fact, "project": "crowd"})
                assert not added.is_error, added

    servers = [over_http(), over_stdio()] * 2
    await asyncio.gather(*(one(number, server) for number, server in enumerate(servers)))
    async with connect(over_http()) as client:
        listed = await client.call_tool("list_memories", {"project": "crowd", "limit": 100})
        assert listed.structured_content["count"] == 20


for check in (
    http,
    http_with_a_handshake,
    stdio,
    stdio_with_a_handshake,
    one_memory_behind_both,
    reading_only,
    many_at_once,
):
    asyncio.run(check())
    print("ok", check.__name__, flush=True)
