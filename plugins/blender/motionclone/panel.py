"""The panels in the sequencer's sidebar, and the preferences."""

import bpy

from . import gather, icons, jobs, preferences, strips


class _Sidebar:
    bl_space_type = "SEQUENCE_EDITOR"
    bl_region_type = "UI"
    bl_category = "MotionClone"

    @classmethod
    def poll(cls, context):
        return strips.sequencer_scene(context) is not None


class MOTIONCLONE_PT_clone(_Sidebar, bpy.types.Panel):
    bl_idname = "MOTIONCLONE_PT_clone"
    bl_label = "Motion Clone"

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        scene = strips.sequencer_scene(context)
        settings, editor = scene.motionclone, scene.sequence_editor
        if editor is None:
            layout.label(text="Add a movie or images to the sequencer first")
            return
        names = strips.collection_name(editor)
        layout.prop_search(settings, "reference", editor, names)
        layout.prop(settings, "prompt")
        layout.prop(settings, "prompt_text")
        layout.prop(settings, "negative_prompt")
        layout.prop(settings, "negative_prompt_text")
        layout.prop(settings, "mode")
        if settings.mode != "TEXT":
            layout.template_ID(settings, "image", open="image.open")
            layout.prop_search(settings, "image_strip", editor, names)
            layout.prop(settings, "image_scale")
        for name in ("seed", "strength", "quality"):
            layout.prop(settings, name)
        if settings.quality == "CUSTOM":
            layout.prop(settings, "steps")
        layout.prop(settings, "size")
        if settings.size == "CUSTOM":
            layout.prop(settings, "side")
            layout.prop(settings, "frames")
        layout.prop(settings, "timing")
        layout.prop(settings, "folder")
        try:
            strip = strips.reference(scene, settings.reference)
            layout.label(text=f"{strip.name}: {_size(context, scene, strip)}")
        except strips.StripError as error:
            layout.label(text=str(error), icon="INFO")
        layout.operator("motionclone.clone", icon="PLAY")
        layout.operator("motionclone.batch")
        layout.operator("motionclone.regenerate", icon="FILE_REFRESH")


def draw_preferences(self, _context):
    """Draws the preferences, and what the Test button has found."""
    layout = self.layout
    for name in ("bundle", "device", "device_number", "library", "onnxruntime", "motions"):
        if name != "device_number" or self.device == "CUDA":
            layout.prop(self, name)
    layout.operator("motionclone.test")
    for line in jobs.session.found if jobs.session else ():
        layout.label(text=line)


def _size(context, scene, strip):
    """The new clip's size, where it is known already."""
    defaults = jobs.session.defaults(preferences.place(context)) if jobs.session else None
    values = {name: getattr(scene.motionclone, name) for name in ("size", "side", "frames")}
    if values["size"] == "MODEL" and defaults is None:
        return "the model's own size"
    return "{}x{}, {} frames".format(*gather.size_of(values, defaults, strips.rectangle(scene, strip)))


class MOTIONCLONE_PT_jobs(_Sidebar, bpy.types.Panel):
    bl_idname = "MOTIONCLONE_PT_jobs"
    bl_label = "Jobs"

    def draw(self, _context):
        layout = self.layout
        if jobs.session is None or not jobs.session.jobs:
            layout.label(text="Nothing to do")
            return
        for index, job in enumerate(jobs.session.jobs):
            box = layout.box()
            row = box.row()
            row.label(text=job.request.title, icon="ERROR" if job.state == "FAILED" else "NONE")
            if job.ended:
                box.label(text=job.message)
                if job.unsaved:
                    box.operator("motionclone.save", icon="FILE_TICK").index = index
            else:
                row.operator("motionclone.cancel", text="", icon="X").index = index
                text = f"{job.message} {job.step}/{job.total}" if job.total else job.message
                if job.seconds_left is not None:
                    text += f", {round(job.seconds_left)} s left"
                box.progress(factor=job.share, text=text)
            icon = icons.preview_icon(job)
            if icon:
                box.template_icon(icon, scale=6)
        if jobs.session.warning:
            layout.label(text=jobs.session.warning, icon="INFO")
        layout.operator("motionclone.clear")


class MOTIONCLONE_PT_motions(_Sidebar, bpy.types.Panel):
    bl_idname = "MOTIONCLONE_PT_motions"
    bl_label = "Motion Library"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context):
        layout = self.layout
        layout.operator("motionclone.extract")
        for folder, text in jobs.motions(context):
            row = layout.row()
            icon = icons.motion_icon(folder)
            if icon:
                row.template_icon(icon, scale=2)
            row.label(text=text)
            row.operator("motionclone.apply", text="Apply").folder = str(folder)
