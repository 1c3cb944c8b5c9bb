"""models.config of the serving tests. No import: what makes the models has tensorflow, what asks them has not."""

MODELS_CONFIG = """\
# Two versions of one model, each with a label, and a second model.
model_config_list {
  config {
    name: 'half_plus_two' base_path: "/models/half_plus_two"; model_platform: "tensorflow"
    model_version_policy { specific { versions: 1 versions: 2 } }
    version_labels { key: "stable" value: 1 }
    version_labels { key: "canary" value: 2 }
  }
  config { name: "images" base_path: "/models/images" model_platform: "tensorflow" }
}
"""
