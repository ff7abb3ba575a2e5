import keras
from sklearn.datasets import load_digits

import hvdtools.keras as hvt

topology = hvt.init()
keras.utils.set_random_seed(0)
pixels, digits = load_digits(return_X_y=True)
x, y = hvt.shard((pixels[:1792] / 16, digits[:1792]))

model = keras.Sequential()
model.add(keras.layers.Dense(64, activation="relu"))
model.add(keras.layers.Dense(10, activation="softmax"))
optimizer = hvt.prepare(keras.optimizers.AdamW(3e-3))
model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(
    x,
    y,
    64 // topology.size,
    epochs=10,
    shuffle=True,
    verbose=0,
    callbacks=hvt.callbacks(),
)
if topology.rank == 0:
    print(f"last loss {history.history['loss'][-1]:.4f}")
