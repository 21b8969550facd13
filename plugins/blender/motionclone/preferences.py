"""The extension's preferences: where the work is done, and where motions are kept."""

import os
from pathlib import Path

import bpy
from bpy.props import EnumProperty, IntProperty, StringProperty


class MOTIONCLONE_preferences(bpy.types.AddonPreferences):
    bl_idname = __package__

    bundle: StringProperty(
        name="Bundle",
        subtype="DIR_PATH",
        description="The folder of the model, made by `motionclone import`; the small model of the extension when empty",
    )
    device: EnumProperty(
        name="Device",
        items=[
            ("AUTO", "Automatic", "The first NVIDIA GPU that works, otherwise the CPU"),
            ("CPU", "CPU", "The processor"),
            ("CUDA", "CUDA", "An NVIDIA GPU"),
        ],
    )
    device_number: IntProperty(name="GPU", min=0, max=63, description="Which of several NVIDIA GPUs")
    library: StringProperty(
        name="Library", subtype="FILE_PATH", description="The motionclone library; that of the extension when empty"
    )
    onnxruntime: StringProperty(
        name="ONNX Runtime",
        subtype="FILE_PATH",
        description="The ONNX Runtime library; the one beside the motionclone library when empty",
    )
    motions: StringProperty(
        name="Motions", subtype="DIR_PATH", description="The motion library; in Blender's own data folder when empty"
    )


def preferences(context):
    return context.preferences.addons[__package__].preferences


def place(context):
    """Where the work is done."""
    from .session import Place

    chosen = preferences(context)
    absolute = {
        name: bpy.path.abspath(getattr(chosen, name)) if getattr(chosen, name) else ""
        for name in ("bundle", "library", "onnxruntime")
    }
    return Place(device=chosen.device, device_number=chosen.device_number, **absolute)


def motions_folder(context):
    chosen = preferences(context).motions
    if chosen:
        return Path(bpy.path.abspath(chosen))
    return data_folder("motions")


def data_folder(name):
    """A folder of the extension in Blender's own data folder."""
    return Path(bpy.utils.user_resource("DATAFILES", path=os.path.join("motionclone", name)))
