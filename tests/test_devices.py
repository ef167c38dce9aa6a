"""`gpu`, `cpu`, `f32` and the like, `get_device`, `outputsize`."""

import warnings

import pytest
import torch

import fluxtorch as Flux
from fluxtorch import *
from fluxtorch import devices
from fluxtorch.layers import basic

# A device that there is everywhere, with arrays that have no numbers.
DEVICE = devices.Device(torch.device("meta"))

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

    def test_precision_of_flux(self):
        basic._warned.clear()  # it warns once
        m = Chain(Dense(10, 5, relu, bias=False), Dense(5, 2))
        x64, x32 = torch.rand(10, dtype=torch.float64), torch.rand(10)
        with pytest.warns(UserWarning, match="Layer with Float32 parameters got Float64 input"):
            assert m(x64).dtype == torch.float32
        assert m[0].weight.dtype == m(x32).dtype == f32(f64(m))[0].weight.dtype == torch.float32
        assert f64(m)(x32).dtype == f64(m)(x64).dtype == f64(m)[0].weight.dtype == torch.float64
        assert f32(x64).dtype == torch.float32 and f16(x64[None, :].T).shape == (10, 1) and f32(x32) is x32
        for dtype in (torch.int64, torch.int32):
            x = torch.ones(10, dtype=dtype)
            assert f32(x) is x
        m = Dense(3 | to | 2, bias=False)
        assert f64(m).bias is f32(m).bias is m.bias is False

    def test_complex_of_flux(self):
        c32, c64 = torch.ones(2, 2, dtype=torch.complex64), torch.ones(2, 2, dtype=torch.complex128)
        assert f32(c32) is c32 and f32(c64).dtype == torch.complex64
        x = f64(nt(a=c64, b=c32))
        assert x.a.dtype == x.b.dtype == torch.complex128

    @pytest.mark.parametrize("convert", [f16, bf16, f64, cpu])
    def test_gradients_flow_through(self, convert):
        grad = gradient(lambda x: convert(x).sum(), torch.rand(2, 3).T)[0]
        assert grad.dtype == torch.float32 and grad.tolist() == [[1, 1]] * 3

    def test_gradients_of_a_model_flow_through(self):
        m, x = Dense(torch.ones(1, 2)), torch.tensor([2.0, 3.0], dtype=torch.float64)
        assert gradient(lambda m: f64(m)(x).sum(), m)[0].weight.tolist() == [[2, 3]]
        assert gradient(lambda: f64(m)(x).sum(), params(m))[m.weight].tolist() == [[2, 3]]
        assert hessian(lambda x: (f64(x) ** 2).sum(), torch.ones(2)).tolist() == [[2, 0], [0, 2]]
        m(x).sum().backward()
        y = f64(m(x))
        assert y.requires_grad and not y.is_leaf

    def test_what_is_tracked_stays_a_source(self):
        W = f64(Flux.Tracker.param([1.0, 2.0]))
        assert W.requires_grad and W.is_leaf
        frozen = f64(torch.nn.Parameter(torch.ones(2), requires_grad=False))
        assert isinstance(frozen, torch.nn.Parameter) and not frozen.requires_grad

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
            x, loader = torch.rand(10, 10), Flux.DataLoader([1, 2])
            assert gpu(x) is x and gpu(loader) is loader
            assert torch.equal(gpu([1.0, 2.0]), torch.tensor([1.0, 2.0]))
        with pytest.raises(RuntimeError, match="no GPU"):
            gpu_device(force=True)

    def test_cpu_shares_what_is_there(self):
        m = Chain(Dense(2, 1), relu)
        c = cpu(m)
        assert c is not m and c[0].weight is m[0].weight
        assert cpu((1, "a", None)) == (1, "a", None) and cpu(range(1, 11)) == DEVICE(range(1, 11)) == range(1, 11)
        assert torch.equal(cpu([1, 2]), torch.tensor([1, 2])) and DEVICE([1, 2]).is_meta

    def test_the_gpu_that_was_chosen_is_remembered(self, monkeypatch):
        monkeypatch.setattr(devices, "_chosen", None)
        monkeypatch.setattr(devices, "_accelerator", lambda: torch.device("cuda"))
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: 3)
        monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 1)
        assert repr(gpu_device()) == "CUDADevice(1)" and repr(gpu_device(2)) == "CUDADevice(2)"
        assert gpu_device() == gpu_device(2) == get_device() != gpu_device(0)
        for id in (3, -1):
            with pytest.raises(RuntimeError, match=f"there is no GPU {id}: torch sees 3, numbered from 0"):
                gpu_device(id)
        assert gpu_device() == gpu_device(0)

    def test_double_precision_ends_where_the_cpu_does(self):
        x = DEVICE((torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.complex128), torch.ones(2).half()))
        assert [v.dtype for v in x] == [torch.float32, torch.complex64, torch.float16]
        assert cpu(torch.ones(2, dtype=torch.float64)).dtype == torch.float64

    def test_the_cpu_waits_for_what_comes(self, monkeypatch):
        asked = []
        monkeypatch.setattr(devices, "_changed", lambda x, **to: asked.append(to["non_blocking"]))
        cpu(torch.ones(1, device="meta"))
        DEVICE(torch.ones(1))
        assert asked == [False, True]

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
        for data in (
            Flux.mlutils.BatchView(torch.ones(4, 4), batchsize=2),
            torch.utils.data.DataLoader(torch.ones(4, 4), 2),
        ):
            moved = DEVICE(data)
            assert isinstance(moved, DeviceIterator) and len(moved) == 2 and all(x.is_meta for x in moved)

    @pytest.mark.parametrize("options", [{}, {"num_workers": 1}, {"collate": True}, {"buffer": True}])
    def test_a_loader_moves_its_batches(self, options):
        loader = Flux.DataLoader(nt(x=torch.ones(2, 10).double(), y=list("abcdefghij")), batchsize=3, **options)
        (moved,) = DEVICE((loader,))
        assert isinstance(moved, Flux.DataLoader) and len(moved) == 4 and moved.batchsize == 3
        for _ in range(2):
            assert [(x.shape, x.is_meta, x.dtype, "".join(y)) for x, y in moved] == [
                ((2, len(y)), True, torch.float32, y) for y in ("abc", "def", "ghi", "j")
            ]
        assert not next(iter(loader)).x.is_meta and getobs(moved.data, 0).x.is_meta
        there_and_on = devices.Device(torch.device("meta"))(moved)
        assert [b.y for b in there_and_on] == [b.y for b in loader]

    def test_a_moved_loader_is_printed_as_flux_does(self):
        loader = cpu(Flux.DataLoader(nt(x=torch.ones(2, 10), y=list("abcdefghij")), batchsize=3))
        kind = "MLUtils.MappedData{:auto, typeof(CPUDevice()), @NamedTuple{x::Matrix{Float32}, y::Vector{String}}}"
        first = "(; x = 2×3 Matrix{Float32}, y = 3-element Vector{String})"
        assert repr(loader) == f"4-element DataLoader(data::{kind}, batchsize=3)\n  with first element:\n  {first}"


class TestOutputsize:
    def test_documented_sizes(self):
        assert outputsize(Dense(10 | to | 4), (10, 128)) == (4, 128)
        assert outputsize(Chain(Dense(10 | to | 4), Dense(4 | to | 2)), (10,), padbatch=True) == (2, 1)
        m = Chain(Conv((3, 3), 3 | to | 16), Conv((3, 3), 16 | to | 32))
        assert outputsize(m, (10, 10, 3, 64)) == (6, 6, 32, 64)
        assert outputsize(lambda xy: xy[0] + xy[1], (2, 3), (2, 1)) == (2, 3)

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

    def test_a_loader(self):
        x = torch.randn(3, 33, dtype=torch.float64)
        pre, post = Flux.DataLoader(gpu(x), batchsize=13), gpu(Flux.DataLoader(x, batchsize=13))
        rev = cpu(pre)
        for _ in range(2):
            for p, q, a in zip(pre, post, rev, strict=True):
                assert p.is_cuda and q.is_cuda and p.dtype == q.dtype == a.dtype == torch.float32
                assert torch.equal(p, q) and not a.is_cuda and torch.equal(a, p.cpu())
        y = onehotbatch(torch.randint(3, (33,)), range(3))
        pre, post = Flux.DataLoader(gpu(nt(x=x, y=y)), batchsize=7), gpu(Flux.DataLoader(nt(x=x, y=y), batchsize=7))
        assert all(torch.equal(p.x, q.x) and torch.equal(p.y, q.y) for p, q in zip(pre, post, strict=True))
        post = gpu(Flux.DataLoader(nt(x=x, y=y), batchsize=7, num_workers=1))
        assert all(torch.equal(p.x, q.x) for p, q in zip(pre, post, strict=True))

    def test_gradients_flow_through(self):
        assert gradient(lambda x: gpu(x).sum(), torch.ones(2))[0].tolist() == [1, 1]
        grad = gradient(lambda x: cpu(x).sum(), gpu(torch.ones(2)))[0]
        assert grad.is_cuda and grad.tolist() == [1, 1]

    def test_implicit(self):
        m = gpu(Chain(Conv((3, 3), 1 | to | 2, relu), flatten, Dense(18 | to | 1)))
        x = gpu(rand32(5, 5, 1, 4))
        gs = gradient(lambda: m(x).sum(), params(m))
        assert all(g.is_cuda for g in gs.values())
        update_(ADAM(), params(m), gs)
