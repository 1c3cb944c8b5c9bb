"""The two models that kcost is shown on. One Keras 3 codebase: no backend is named in here."""
