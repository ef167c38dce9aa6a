"""`gpu`, `cpu`, `f32` and the like, `get_device`, `outputsize`."""

import warnings

import pytest
import torch

import fluxtorch as Flux
from fluxtorch import *
from fluxtorch import devices

no_gpu = pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")


class TestElementTypes:
    @pytest.mark.parametrize(
        ("convert", "dtype"), [(f16, torch.float16), (bf16, torch.bfloat16), (f32, torch.float32), (f64, torch.float64)]
    )
    def test_floats_change_and_integers_stay(self, convert, dtype):
        x = convert(nt(a=torch.ones(2, dtype=torch.float64), b=torch.tensor([1, 2]), c="text", d=Dense(2, 1), e=3.0))
        assert x.a.dtype == x.d.weight.dtype == dtype
        assert x.b.dtype == torch.int64 and x.c == "text" and x.e == 3.0
        assert convert([1.0, 2.0]).dtype == dtype

    def test_a_model_stays_one_and_its_original_unchanged(self):
        m = Chain(Dense(2 | to | 3, tanh), BatchNorm(3), Dense(3 | to | 1))
        d = f64(m)
        assert {p.dtype for p in params(d)} == {torch.float64} and {p.dtype for p in params(m)} == {torch.float32}
        assert d[1].μ.dtype == torch.float64
        assert all(isinstance(p, torch.nn.Parameter) for p in params(d))
        torch.testing.assert_close(d(torch.ones(2, 3).double()), m(torch.ones(2, 3)).double(), rtol=1e-5, atol=1e-6)
        assert f32(m)[0].weight is m[0].weight

    def test_gradients_after_conversion(self):
        m = f64(Dense(torch.ones(1, 2)))
        assert gradient(lambda m: m(torch.ones(2).double()).sum(), m)[0].weight.dtype == torch.float64

    def test_a_number_is_refused(self):
        with pytest.raises(TypeError, match=r"f64 converts arrays and models, and got the number 2\.0"):
            f64(2.0)


class TestDevices:
    @no_gpu
    def test_gpu_without_one_is_the_identity_and_said_once(self):
        devices._say_no_gpu.cache_clear()
        m = Dense(2, 1)
        with pytest.warns(UserWarning, match="No GPU is available"):
            assert gpu(m) is m
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert gpu(m) is m
            assert gpu_device() == cpu_device()
        with pytest.raises(RuntimeError, match="no GPU"):
            gpu_device(force=True)

    def test_cpu_shares_what_is_there(self):
        m = Chain(Dense(2, 1), relu)
        c = cpu(m)
        assert c is not m and c[0].weight is m[0].weight
        assert cpu((1, "a", None)) == (1, "a", None)

    def test_get_device(self):
        assert get_device("CPU") == cpu_device() == get_device(nt(x=torch.ones(1)))
        assert repr(cpu_device()) == "CPUDevice()"
        assert get_device("text" and (1, 2)) is None
        assert Flux.get_device_type(Dense(1, 1)) == "cpu"
        with pytest.raises(ValueError, match="several devices"):
            get_device((torch.ones(1), torch.ones(1, device="meta")))
        with pytest.raises(ValueError, match="'TPU'"):
            get_device("TPU")

    def test_data_goes_along(self):
        x, y = cpu_device()((torch.ones(2), [torch.zeros(1)]))
        assert x.tolist() == [1, 1] and y[0].tolist() == [0]
        items = list(DeviceIterator(cpu_device(), [(torch.ones(1), 1)]))
        assert items[0][1] == 1


class TestOutputsize:
    def test_documented_sizes(self):
        assert outputsize(Dense(10 | to | 4), (10, 128)) == (4, 128)
        assert outputsize(Chain(Dense(10 | to | 4), Dense(4 | to | 2)), (10,), padbatch=True) == (2, 1)
        m = Chain(Conv((3, 3), 3 | to | 16), Conv((3, 3), 16 | to | 32))
        assert outputsize(m, (10, 10, 3, 64)) == (6, 6, 32, 64)
        assert outputsize(lambda x, y: x + y, (2, 3), (2, 1)) == (2, 3)

    def test_nothing_is_computed_and_nothing_changes(self):
        m = Chain(LSTM(2, 3), BatchNorm(3), Dropout(0.5))
        trainmode_(m)
        state = [s.clone() for s in m[0].state]
        assert outputsize(m, (2, 10**9)) == (3, 10**9)
        assert all(torch.equal(a, b) for a, b in zip(state, m[0].state, strict=True))
        assert m[1].active is True and m[1].μ.tolist() == [0, 0, 0]
        assert m[0].cell.Wi.device.type == "cpu"

    def test_errors(self):
        with pytest.raises(DimensionMismatch, match=r"layer Dense\(2 => 1\)"):
            outputsize(Chain(Dense(3, 3), Dense(2, 1)), (3, 1))
        with pytest.raises(TypeError, match="sizes as tuples"):
            outputsize(Dense(2, 1), 2)
        with pytest.raises(TypeError, match="try outputsize"):
            outdims(relu, (2,))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
class TestCUDA:
    def test_a_model_there_and_back(self):
        m = Chain(Dense(2 | to | 3, tanh), LSTM(3, 2), BatchNorm(2))
        g = gpu(m)
        assert {p.device.type for p in params(g)} == {"cuda"} and g[2].μ.is_cuda and g[1].state[0].is_cuda
        assert g[1].state[0] is g[1].cell.state0[0]
        assert {p.device.type for p in params(m)} == {"cpu"}
        back = cpu(g)
        for p, q in zip(params(m), params(back), strict=True):
            assert torch.equal(p, q)
        assert gpu(torch.ones(2, dtype=torch.float64)).dtype == torch.float32
        assert get_device(g) == gpu_device()

    def test_training(self):
        torch.manual_seed(0)
        m = gpu(Chain(Dense(2 | to | 8, tanh), Dropout(0.1), Dense(8 | to | 1)))
        x, y = gpu((rand32(2, 64), rand32(1, 64)))
        opt = setup(Adam(0.01), m)
        before = mse(m(x), y).item()
        for _ in range(50):
            train_(lambda m, x, y: mse(m(x), y), m, [(x, y)], opt)
        assert mse(m(x), y).item() < before

    def test_implicit(self):
        m = gpu(Chain(Conv((3, 3), 1 | to | 2, relu), flatten, Dense(18 | to | 1)))
        x = gpu(rand32(5, 5, 1, 4))
        gs = gradient(lambda: m(x).sum(), params(m))
        assert all(g.is_cuda for g in gs.values())
        update_(ADAM(), params(m), gs)
