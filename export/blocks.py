"""The parts of a graph that may stay in float together: a network's blocks, by the names that the converter keeps."""

import onnx

from family.models.layer_names import block_of

HEAD = "head"  # behind the last block


def before_first_convolution(model: onnx.ModelProto) -> list[str]:
    """Return the nodes that arrange pixels, which are always in float: raw pixels lose more in int8 than it saves."""
    consumers = _consumers(model)
    found, wave = [], ["image"]
    while wave:
        nodes = [node for name in wave for node in consumers.get(name, []) if node.op_type != "Conv"]
        found += [node.name for node in nodes]
        wave = [name for node in nodes for name in node.output]
    return found


def find_blocks(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Return block -> its nodes' names, both in the order of the graph, without what arranges pixels.

    A node whose name tells no block belongs to that of its first consumer, and to the head behind the last block. Where no name tells a block, each
    convolution begins one, which has its name.
    """
    idle = set(before_first_convolution(model))
    nodes = [node for node in model.graph.node if node.name not in idle]
    named = {node.name: _told(node.name) for node in nodes}
    block = _after_convolutions(nodes) if not any(named.values()) else _by_name(nodes, named, _consumers(model))
    found: dict[str, list[str]] = {}
    for node in nodes:
        found.setdefault(block[node.name], []).append(node.name)
    return found


def _told(name: str) -> str | None:
    return next(filter(None, map(block_of, name.split("/"))), None)


def _by_name(nodes: list, named: dict[str, str | None], consumers: dict[str, list]) -> dict[str, str]:
    block: dict[str, str] = {}
    for node in reversed(nodes):  # so that consumers are known before
        users = [user.name for name in node.output for user in consumers.get(name, [])]
        block[node.name] = named[node.name] or (block[users[0]] if users else HEAD)
    return block


def _after_convolutions(nodes: list) -> dict[str, str]:
    block, last = {}, HEAD
    for node in nodes:
        last = node.name if node.op_type == "Conv" else last
        block[node.name] = last
    return block


def count_convolutions(model: onnx.ModelProto, names: list[str] | None = None) -> int:
    """Count the convolutions of a graph, or those among some of its nodes."""
    return sum(node.op_type == "Conv" and (names is None or node.name in names) for node in model.graph.node)


def _consumers(model: onnx.ModelProto) -> dict[str, list]:
    """Return tensor -> the nodes that use it, in the order of the graph."""
    found: dict[str, list] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found
