"""Icons for the panels: the live preview of a job, and the thumbnails of the motion library."""

icons = None


def preview_icon(job):
    """The icon of a job's live preview, or 0."""
    clip = job.preview
    if clip is None:
        return 0
    key = f"job {job.number}"
    icon = _icons().get(key) or _icons().new(key)
    # Drawn again only when the library has a new one.
    if job.drawn != job.previews:
        job.drawn = job.previews
        rgb = clip.frame(clip.count // 2)
        icon.image_size = (clip.width, clip.height)
        row = clip.width * 3
        icon.image_pixels_float = [
            value
            for y in reversed(range(clip.height))
            for x in range(0, row, 3)
            for value in (*(sample / 255 for sample in rgb[y * row + x : y * row + x + 3]), 1.0)
        ]
    return icon.icon_id


def motion_icon(folder):
    """The icon of a motion's thumbnail, or 0."""
    file = folder / "thumbnail.png"
    if not file.is_file():
        return 0
    key = str(file)
    return (_icons().get(key) or _icons().load(key, key, "IMAGE")).icon_id


def close():
    """Forgets them all."""
    global icons
    if icons is not None:
        from bpy.utils import previews

        previews.remove(icons)
        icons = None


def _icons():
    global icons
    if icons is None:
        from bpy.utils import previews

        icons = previews.new()
    return icons
