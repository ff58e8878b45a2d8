"""A model may change after an encoder was made around it: its parts, its adapters, its mode, its hooks."""

from __future__ import annotations

import gc
import weakref
from functools import partial

import families
import peft
import pytest
import torch
from tiny import TinyImages, random_pixels
from torch import nn

import residual
from residual.encoders.running import evaluating
from residual.encoders.wrappers import affine
from residual.errors import OtherResultError
from residual.text import ZeroShotClassifier

pytestmark = [  # what these libraries say to each other
    pytest.mark.filterwarnings("ignore:`.*checkpointing.*` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning"),
]
PIXELS = random_pixels(2, dtype=torch.float32)
LAYERS = {
    "clip": ["q_proj", "out_proj", "fc1"],
    "siglip vision": r".*encoder.*(q_proj|out_proj)",  # its pool hides one, which would be left out
    "blip": ["qkv", "projection"],
    "vit": ["v_proj", "o_proj"],
    "dinov2": ["o_proj", "fc2"],
    "timm layer scale, registers": ["qkv", "proj"],
    "open_clip": ["c_fc", "c_proj"],
    "dinov3": ["o_proj", "down_proj"],
    "eva02": ["v_proj", "proj"],
    "eva perception": ["kv", "proj"],  # in its pool, too
    "aimv2": ["k_proj", "v_proj", "out_proj", "output_proj"],
    "deit classifiers": ["o_proj", "cls_classifier"],
}


def lora(module, kind, name="one", **how):
    settings = peft.LoraConfig(r=2, target_modules=LAYERS[kind], init_lora_weights=False, **how)
    return peft.get_peft_model(module, settings, adapter_name=name).eval()


def check_split(encoder):
    """What it splits now is what the model gives now; that output."""
    with torch.no_grad():
        output = encoder.encode_image(PIXELS)
    for pooling in ("own", "avg"):
        split = residual.decompose(encoder, PIXELS, pooling)
        torch.testing.assert_close(split.contributions.sum(2), split.output, atol=1e-4, rtol=1e-4)
        if pooling == "own":
            torch.testing.assert_close(split.output[:, 0], output, atol=1e-5, rtol=1e-4)
    return output


@pytest.mark.parametrize("kind", LAYERS)
def test_adapters_of_peft_are_split_as_they_are_now(kind):
    module = families.CASES[kind].make()
    encoder = residual.wrap_encoder(module)
    plain, print_of_plain = check_split(encoder), encoder.fingerprint
    model = lora(module, kind)  # in place: layers of peft stand around those that were there
    one = check_split(encoder)
    prints = {print_of_plain, encoder.fingerprint}
    model.add_adapter("two", model.peft_config["one"])
    model.set_adapter("two")
    two = check_split(encoder)
    prints.add(encoder.fingerprint)
    assert ((one - two).norm() / two.norm()) > 1e-2 < ((plain - two).norm() / two.norm())
    assert len(prints) == 3
    with model.disable_adapter():
        torch.testing.assert_close(check_split(encoder), plain)
    torch.testing.assert_close(check_split(residual.wrap_encoder(model)), two)
    model.merge_adapter()
    torch.testing.assert_close(check_split(encoder), two, atol=1e-4, rtol=1e-4)
    model.unmerge_adapter()
    encoder = residual.wrap_encoder(model.merge_and_unload())
    torch.testing.assert_close(check_split(encoder), two, atol=1e-4, rtol=1e-4)


def test_a_layer_of_peft_that_torch_does_not_call_in_a_pool_is_left_out():
    settings = peft.LoraConfig(r=2, target_modules=["out_proj"], init_lora_weights=False)
    check_split(residual.wrap_encoder(peft.get_peft_model(families.CASES["siglip vision"].make(), settings)))


def test_adapters_differ_in_what_no_weight_tells(tmp_path):
    module = families.CASES["clip vision"].make()
    model = lora(module, "clip")
    encoder, data = residual.wrap_encoder(model), TinyImages(6)
    model.add_adapter("two", model.peft_config["one"])
    residual.encode_dataset(encoder, data, tmp_path / "store")
    before = encoder.fingerprint
    model.set_adapter("two")
    with pytest.raises(OtherResultError, match="encoder weights"):
        residual.encode_dataset(encoder, data, tmp_path / "store")
    model.set_adapter("one")
    assert encoder.fingerprint == before
    for layer in module.modules():
        if isinstance(layer, peft.tuners.lora.LoraLayer):
            layer.scale_layer(2.0)
    check_split(encoder)
    assert encoder.fingerprint != before


def test_a_classifier_that_peft_trained_whole_is_the_projection():
    model = lora(families.CASES["vit classifier"].make(), "vit", modules_to_save=["classifier"])
    encoder = residual.wrap_encoder(model)
    assert encoder.output_dim == 7
    before = check_split(encoder)
    with torch.no_grad():
        model.get_base_model().classifier.modules_to_save["one"].weight.add_(1)
    assert not torch.allclose(check_split(encoder), before)


def test_what_was_compiled_is_found_again_and_let_go():
    made = []
    encoder = residual.wrap_encoder(families.CASES["timm"].make()).compile(lambda run: made.append(1) or run)
    check_split(encoder)
    first = len(made)
    for _ in range(3):
        with encoder.module.norm.register_forward_hook(lambda *call: None):
            encoder.encode_image(PIXELS)
        check_split(encoder)
    assert len(made) == first + 3  # once with each hook, and without it no more
    old = weakref.ref(encoder.module.blocks[0].mlp)
    encoder.module.blocks[0].mlp = families.CASES["timm"].make(seed=3).blocks[0].mlp
    encoder.to("cpu")
    gc.collect()
    assert old() is None


def test_reading_off_a_layer_of_peft_copies_no_more_than_the_layer(monkeypatch):
    module = families.CASES["vit"].make()
    lora(module, "vit")
    encoder = residual.wrap_encoder(module)
    output = encoder.parts.blocks[0].attention_output
    want, copied, copy = affine(output), [], nn.Parameter.__deepcopy__
    monkeypatch.setattr(nn.Parameter, "__deepcopy__", lambda *call: copied.append(1) or copy(*call))
    for part in output.modules():
        part.register_forward_hook(partial(lambda model, *call: None, module))
    torch.testing.assert_close(affine(output), want)
    assert len(copied) == len(list(output.parameters()))


@pytest.mark.parametrize("layer", ["attn", "out_proj"])
def test_adapters_inside_an_attention_that_hides_them_are_refused(layer):
    module = families.CASES["open_clip"].make()
    model = peft.get_peft_model(module, peft.LoraConfig(target_modules=[layer], init_lora_weights=False))
    with pytest.raises(residual.ResidualError, match=r"attn as a MultiheadAttention of its own.*merge"):
        residual.wrap_encoder(model)


def test_prompts_of_peft_are_refused_and_norms_of_its_own():
    module = families.CASES["vit"].make()
    model = peft.get_peft_model(module, peft.LNTuningConfig(target_modules=["layernorm"]))
    with pytest.raises(residual.ResidualError, match=r"layernorm .inside a layer of peft: merge"):
        residual.wrap_encoder(model)


def test_shells_around_a_model_are_taken_off():
    module = families.CASES["vit"].make()
    assert residual.wrap_encoder(nn.DataParallel(module)).module is module


@pytest.mark.parametrize("kind", ["open_clip layer scale", "dinov2", "timm classifier", "clip"])
def test_weights_that_are_assigned_are_the_models(kind):
    encoder, other = (residual.wrap_encoder(families.CASES[kind].make(seed=seed)) for seed in (0, 1))
    before = check_split(encoder)
    encoder.module.load_state_dict(other.module.state_dict(), assign=True)
    after = check_split(encoder)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, check_split(other))
    assert encoder.fingerprint == other.fingerprint


@pytest.mark.parametrize("compiled", [False, True])
def test_parts_that_are_exchanged_are_the_models(compiled):
    encoder = residual.wrap_encoder(families.CASES["timm classifier"].make())
    if compiled:
        encoder.compile(lambda run: run)
    before = check_split(encoder)
    encoder.module.blocks[0].mlp.act = nn.ReLU()
    other = check_split(encoder)
    assert not torch.allclose(before, other, atol=1e-3)
    encoder.module.blocks[1] = families.CASES["timm"].make(seed=3).blocks[1]
    assert not torch.allclose(check_split(encoder), other, atol=1e-3)
    encoder.module.reset_classifier(5)
    assert check_split(encoder).shape == (2, 5)
    encoder.module.reset_classifier(0)
    assert check_split(encoder).shape == (2, encoder.output_dim) == (2, 24)
    made = dict(encoder.compiled)
    check_split(encoder)
    assert encoder.compiled == made


def test_compiled_traces_see_hooks_and_adapters_that_come():
    encoder = residual.wrap_encoder(families.CASES["clip vision"].make()).compile(lambda run: run)
    plain = check_split(encoder)
    hook = encoder.module.vision_model.encoder.layers[0].mlp.register_forward_hook(lambda *call: 2 * call[2])
    doubled = check_split(encoder)
    assert not torch.allclose(doubled, plain, atol=1e-3)
    hook.remove()
    torch.testing.assert_close(check_split(encoder), plain)
    model = lora(encoder.module, "clip")
    one = check_split(encoder)
    with model.disable_adapter():
        torch.testing.assert_close(check_split(encoder), plain)
    torch.testing.assert_close(check_split(encoder), one)


def let_drop(module):
    for part in module.modules():
        if isinstance(getattr(part, "dropout", None), float):
            part.dropout = 0.5
        if isinstance(part, nn.Dropout):
            part.p = 0.5
    module.train()


def run_layers_again(module):
    if hasattr(module, "gradient_checkpointing_enable"):
        module.gradient_checkpointing_enable()
    else:
        module.set_grad_checkpointing()


@pytest.mark.parametrize("kind", ["clip", "timm", "open_clip"])
def test_a_model_set_to_training_gives_what_it_gives_in_evaluation(kind):
    module = families.CASES[kind].make()
    encoder = residual.wrap_encoder(module)
    want = check_split(encoder)
    let_drop(module)
    module.get_submodule(next(name for name, _ in module.named_children())).eval()
    modes = [part.training for part in module.modules()]
    torch.testing.assert_close(check_split(encoder), want)
    assert [part.training for part in module.modules()] == modes
    trained = [encoder.run("image", PIXELS) for _ in range(2)]  # what fine-tuning calls
    assert (not torch.equal(*trained)) == (kind != "open_clip")  # whose attention is all that could drop


def test_neither_mode_nor_autocast_gets_into_what_is_kept_of_texts(tmp_path, monkeypatch):
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path))
    encoder = residual.load_encoder("picto", device="cpu", dtype=torch.float32)
    texts = ["a red flag", "the letter A"]
    want = nn.functional.normalize(encoder.encode_text(texts), dim=1).detach()
    for layer in encoder.module.text_model.encoder.layers:
        layer.self_attn.dropout = 0.5
    encoder.module.train()
    with torch.autocast("cpu", torch.bfloat16):
        made = ZeroShotClassifier.from_text(encoder, texts, ["{}"]).weights
    torch.testing.assert_close(made, want, atol=1e-5, rtol=1e-5)
    assert encoder.module.training
    torch.testing.assert_close(ZeroShotClassifier.from_text(encoder, texts, ["{}"]).weights, made)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize("kind", ["vit", "timm", "open_clip"])
def test_gradients_flow_where_layers_are_run_again_for_them(kind):
    encoder = residual.wrap_encoder(families.CASES[kind].make())
    pixels = PIXELS.clone().requires_grad_()
    (want,) = torch.autograd.grad(residual.decompose(encoder, pixels, grad=True).contributions.sum(), pixels)
    run_layers_again(encoder.module.train())
    (got,) = torch.autograd.grad(residual.decompose(encoder, pixels, grad=True).contributions.sum(), pixels)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("kind", ["vit", "timm", "open_clip"])
def test_who_has_gradients_recorded_trains_in_the_model_s_own_mode(kind):
    encoder, seen = residual.wrap_encoder(families.CASES[kind].make()), []
    want = encoder.encode_image(PIXELS).detach()
    let_drop(encoder.module)
    first = encoder.parts.blocks[0]
    first.mlp.register_forward_pre_hook(lambda *call: seen.append(call))
    gradients = []
    for encode in (lambda: encoder.run("image", PIXELS), lambda: encoder.encode_image(PIXELS)):
        torch.manual_seed(0)
        weights = list(first.mlp.parameters())
        gradients.append(torch.autograd.grad(encode().square().sum(), weights))
        run_layers_again(encoder.module)
    torch.testing.assert_close(gradients[1], gradients[0])
    assert len(seen) == 3  # without, and with layers that are run again in the backward pass
    encoder.module.requires_grad_(False)
    torch.testing.assert_close(encoder.encode_image(PIXELS), want)


def test_threads_in_evaluation_at_once_set_the_mode_back_when_the_last_leaves():
    module = families.CASES["timm"].make().train()
    module.set_grad_checkpointing()
    module.norm.eval()
    first, second = evaluating(module, hooked=True), evaluating(module)  # whose order threads don't keep
    first.__enter__()
    second.__enter__()
    assert not module.grad_checkpointing
    first.__exit__(None, None, None)
    assert module.grad_checkpointing
    assert not any(part.training for part in module.modules())
    second.__exit__(None, None, None)
    assert [part for part in module.modules() if not part.training] == [module.norm]


def test_a_buffer_that_no_state_dict_holds_is_in_the_fingerprint():
    encoder = residual.wrap_encoder(families.CASES["vit"].make())
    before = encoder.fingerprint
    encoder.module.layers[0].register_buffer("angles", torch.ones(3), persistent=False)
    ones = encoder.fingerprint
    encoder.module.layers[0].angles.mul_(2)
    assert len({before, ones, encoder.fingerprint}) == 3


def test_quantized_layers_are_refused_by_name():
    module = families.CASES["vit"].make()
    output = module.layers[1].attention.o_proj
    module.layers[1].attention.o_proj = type("Linear", (nn.Module,), {"__module__": "quantized.dynamic"})()
    with pytest.raises(residual.ResidualError, match=r"a quantized\.dynamic\.Linear, expected a Linear"):
        residual.wrap_encoder(module)
    module.layers[1].attention.o_proj = output
    output.weight = nn.Parameter(output.weight.detach().to(torch.int8), requires_grad=False)
    with pytest.raises(residual.ResidualError, match=r"o_proj \(quantized to int8"):
        residual.wrap_encoder(module)


def test_weights_that_are_not_there_are_told():
    module = families.CASES["vit"].make()
    encoder = residual.wrap_encoder(module)
    module.layernorm.to("meta")
    for use in (residual.decompose, residual.trace):
        with pytest.raises(residual.ResidualError, match="weights that aren't there"):
            use(encoder, PIXELS)
    with pytest.raises(residual.ResidualError, match="weights that aren't there"):
        _ = encoder.fingerprint
    module.to("meta")
    with pytest.raises(residual.ResidualError, match="weights that aren't there"):
        encoder.encode_image(PIXELS)
