#!/bin/bash
# PYTHON=python3.12 benchmarks/triton/install.sh FOLDER: a real Triton Inference Server (2.51.0, CPU), without root or a container.
#
# It is the server of PyPI's nvidia-pytriton. Of Triton's backends the wheel holds only that for Python, so that
# onnxruntime_backend.py stands in for the backend onnxruntime. Needs glibc 2.35 or newer, and a Python from 3.8 to
# 3.12 that was built with --enable-shared. FOLDER/tritonserver then starts it on loopback.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mkdir -p "$1" && cd "$1" && pwd)
[ -x "$folder/venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder/venv"
python=$folder/venv/bin/python
"$python" -m pip install -q nvidia-pytriton==0.7.0 'numpy<2' 'onnxruntime>=1.20'
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
libraries=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
server=$packages/pytriton/tritonserver
mkdir -p "$folder/backends/python" "$folder/backends/onnxruntime"
cp "$server"/backends/python/*.so "$server"/backends/python/*.py "$folder/backends/python/"
cp "$server/python_backend_stubs/$version/triton_python_backend_stub" "$folder/backends/python/"
cp "$here/onnxruntime_backend.py" "$folder/backends/onnxruntime/model.py"
chmod +x "$server/bin/tritonserver" "$folder/backends/python/triton_python_backend_stub"
# the embedded interpreter ignores PYTHONPATH and takes its prefix from the first python3 on PATH
cat > "$folder/tritonserver" <<START
#!/bin/bash
# tritonserver --model-repository=FOLDER [options]: on loopback; HTTP on port \${PORT:-18000}, gRPC and metrics behind it
unset PYTHONHOME PYTHONPATH
port=\${PORT:-18000}
export LD_LIBRARY_PATH=$packages/nvidia_pytriton.libs:$libraries PATH=$folder/venv/bin:\$PATH
exec $server/bin/tritonserver --backend-directory=$folder/backends --allow-gpu-metrics=false \\
  --http-address=127.0.0.1 --http-port=\$port --grpc-address=127.0.0.1 --grpc-port=\$((port + 1)) \\
  --metrics-address=127.0.0.1 --metrics-port=\$((port + 2)) "\$@"
START
chmod +x "$folder/tritonserver"
echo "$folder/tritonserver --model-repository=FOLDER"
