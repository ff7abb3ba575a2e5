import keras
import tensorflow as tf

import hvdtools.tensorflow as hvt

topology = hvt.init()  # before TensorFlow creates a tensor, a model or an optimizer
keras.utils.set_random_seed(1)
inputs = tf.random.normal((512, 8))
data = tf.data.Dataset.from_tensor_slices((inputs, tf.reduce_sum(inputs, 1, keepdims=True)))
data = data.shard(topology.size, topology.rank).shuffle(512).batch(16, drop_remainder=True)
model = keras.Sequential([keras.layers.Dense(1)])
model.build((None, 8))
optimizer = keras.optimizers.AdamW(0.05)
hvt.broadcast_variables(model.variables)  # rank 0's initial weights


@tf.function
def train_step(x, y):
    with hvt.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
    gradients = tape.gradient(loss, model.trainable_variables)  # averages over ranks
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return loss


for epoch in range(5):
    for x, y in data:
        loss = train_step(x, y)
    mean = hvt.average(loss)
    if topology.rank == 0:
        print(f"epoch {epoch}: loss {mean:.4f}")
