"""What we recognise, what it learns from, what the models are, how they learn, how good they are."""

import os

# Keras 2 is the Keras that Horovod, efficientnet and the model optimization toolkit know; TensorFlow reads this
# when it is first imported, so it is set before anything of ours can import it.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
