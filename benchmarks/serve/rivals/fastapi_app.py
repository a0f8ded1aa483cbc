"""FastAPI with onnxruntime, as users write it; and the same with raw bytes as the body."""

import os

import numpy as np
import onnxruntime
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["NETWORK"], options, providers=["CPUExecutionProvider"])
shape = [size if isinstance(size, int) else -1 for size in session.get_inputs()[0].shape]
app = FastAPI()


class Body(BaseModel):
    """One batch."""

    data: list


@app.get("/ready")
def ready() -> dict[str, bool]:
    """Say that the network is loaded."""
    return {"ready": True}


@app.post("/predict")
def predict(body: Body) -> dict[str, list]:
    """Run JSON."""
    inputs = np.array(body.data, np.float32).reshape(shape)
    return {"outputs": session.run(None, {"input": inputs})[0].tolist()}


@app.post("/bytes")
async def predict_bytes(request: Request) -> Response:
    """Run raw bytes."""
    inputs = np.frombuffer(await request.body(), np.float32).reshape(shape)
    return Response(session.run(None, {"input": inputs})[0].tobytes(), media_type="application/octet-stream")
