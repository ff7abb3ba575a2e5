import keras
import numpy as np

import hvdtools.keras as hvt

topology = hvt.init()  # before TensorFlow creates a tensor, a model or an optimizer
keras.utils.set_random_seed(1)
inputs = np.random.normal(size=(512, 8))
x, y = hvt.shard((inputs, inputs.sum(1, keepdims=True)))  # or a tf.data.Dataset, or a PyDataset
model = keras.Sequential([keras.layers.Dense(1)])
optimizer = hvt.prepare(keras.optimizers.AdamW(0.05))  # the same optimizer
model.compile(optimizer, "mse")
stop = keras.callbacks.EarlyStopping("loss", patience=2)  # sees the loss of all ranks
history = model.fit(x, y, 16, epochs=5, verbose=0, callbacks=hvt.callbacks(stop))
if topology.rank == 0:
    for epoch, loss in enumerate(history.history["loss"]):
        print(f"epoch {epoch}: loss {loss:.4f}")
