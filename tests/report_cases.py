"""What tests of reports share: texts that are markup, and a report of any size."""

NASTY_PROMPT = """</script><script>alert(1)</script> "three" fingers raised & 'more'\u2028\u2029<!--"""
NASTY_FILE = """"><img src=x onerror=alert(2)> & 'hand'\u2028.png"""


def enlarged(document: dict, count: int) -> dict:
    """The document with its real images repeated up to `count` in each folder, every one with a prompt of its own."""
    folders = []
    for folder in document["folders"]:
        rows = folder["images"]
        images = [
            {**rows[index % len(rows)], "prompt": f"{rows[index % len(rows)]['prompt']} ({index})", "seed": index}
            for index in range(count)
        ]
        folders.append({**folder, "images": images, "scored": count})
    indices = list(range(count))
    pairing = {**document["pairings"][0], "baseline_images": indices, "other_images": indices}
    return {**document, "folders": folders, "pairings": [pairing]}
