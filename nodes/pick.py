"""AlloSR2PickFromList: one value of a list, as a node that takes one at a time would see it."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .node import Node, schema


class AlloSR2PickFromList(Node):
    """For AlloSR2 Upscale: the nodes inside it are connected to one picture of a list each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "AlloSR2PickFromList",
            words=("allosr2", "list", "index", "select"),
            display_name="Pick from List (AlloSR2)",
            description="Gives one value of a list, such as the pictures of a folder.",
            is_input_list=True,
            inputs=[
                io.AnyType.Input("values", tooltip="A list of values of any type, or a single one."),
                io.Int.Input(
                    "number",
                    default=0,
                    min=0,
                    max=2**31 - 1,
                    tooltip="Which one, from 0. Behind the end of the list it is the last one.",
                ),
            ],
            outputs=[io.AnyType.Output("value", display_name="value", tooltip="The value with this number.")],
        )

    @classmethod
    def execute(cls, values: list[Any], number: list[int]) -> io.NodeOutput:
        return io.NodeOutput(values[number[0] if number[0] < len(values) else -1])
