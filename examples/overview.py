"""Flux Overview: fit 4x + 2 (the page of Flux 0.12 and 0.13), line by line. Run: python examples/overview.py"""

from fluxtorch import *
import fluxtorch as Flux

# -- Make a Trivial Prediction -----------------------------------------------------------------------

actual = lambda x: 4 * x + 2

# -- Provide Training and Test Data ------------------------------------------------------------------

# 0:5 and 6:10 are values, and include their end.
x_train, x_test = hcat(*range(0, 6)), hcat(*range(6, 11))
print("x_train, x_test =", x_train, x_test)  # ([0 1 … 4 5], [6 7 … 9 10])

y_train, y_test = actual(x_train), actual(x_test)
print("y_train, y_test =", y_train, y_test)  # ([2 6 … 18 22], [26 30 … 38 42])

# -- Build a Model to Make Predictions ---------------------------------------------------------------

model = Dense(1, 1)
print("model =", model)  # Dense(1, 1)

print("model.weight =", model.weight)  # 1×1 Matrix{Float32}

print("model.bias =", model.bias)  # 1-element Vector{Float32}

predict = Dense(1, 1)

print("predict(x_train) =", predict(x_train))  # not accurate yet

loss = lambda x, y: Flux.Losses.mse(predict(x), y)

print("loss(x_train, y_train) =", loss(x_train, y_train))

# -- Improve the Prediction --------------------------------------------------------------------------

from fluxtorch import train_

opt = Descent()

data = [(x_train, y_train)]

print("predict.weight =", predict.weight)

print("predict.bias =", predict.bias)

parameters = params(predict)
print("parameters =", parameters)

print(predict.weight in parameters, predict.bias in parameters)  # (true, true)

train_(loss, parameters, data, opt)

print("loss after one step =", loss(x_train, y_train))

print("parameters =", parameters)

# -- Iteratively Train the Model ---------------------------------------------------------------------

for epoch in range(1, 201):
    train_(loss, parameters, data, opt)

print("loss after 200 epochs =", loss(x_train, y_train))

print("parameters =", parameters)  # near 4 and 2

# -- Verify the Results ------------------------------------------------------------------------------

print("predict(x_test) =", predict(x_test))

print("y_test =         ", y_test)  # 26  30  34  38  42
