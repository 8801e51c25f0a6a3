# make demo    everything, on made-up listings          make demo FRESH=1   again, from nothing
# make test    every test that this machine can run     make setup          only the environment
# make peers   OpenVINO, NNCF and PyTorch too           make test-peers     the tests of what is timed beside them
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
VENV := .venv
READY := $(VENV)/.ready
PIP := $(VENV)/bin/pip --disable-pip-version-check

# Keras 2 is what Horovod, efficientnet and the model optimization toolkit work with.
export TF_USE_LEGACY_KERAS := 1

.PHONY: setup peers demo test test-peers lint clean
setup: $(READY)

# Horovod compiles against the TensorFlow that is installed, hence the order and no build isolation.
# A GPU node sets HOROVOD_GPU_OPERATIONS=NCCL; it passes through.
$(READY): pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c .ci/constraints.txt "setuptools<80" wheel "cmake<4"
	@echo "installing TensorFlow (about 650 MB) ..."
	$(PIP) install -q -c .ci/constraints.txt tensorflow==2.18.1 tf-keras==2.18.0
	@echo "building Horovod with Gloo: 4 to 9 minutes on two cores the first time ..."
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 \
	HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 \
	$(PIP) install -q -c .ci/constraints.txt --no-build-isolation horovod==0.28.1
	$(PIP) install -q -c .ci/constraints.txt --no-build-isolation -e ".[train,dev]"
	touch $@

peers: setup
	$(PIP) install -q -c .ci/constraints.txt --no-build-isolation -e ".[peers]"

demo: setup
	$(VENV)/bin/family demo $(if $(FRESH),--fresh)

test: setup
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile $(ARGS)

# Apart, a process for each file: libraries that bring their own threads and kernels bring each other down.
test-peers: peers
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile tests/peers $(ARGS)

lint: setup
	$(VENV)/bin/ruff check .

clean:
	rm -rf $(VENV) build *.egg-info
