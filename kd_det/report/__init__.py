"""Reports of finished trainings; needs the extra ``report`` (matplotlib and jinja2)."""
