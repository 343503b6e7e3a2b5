"""One training run, from its arguments to a model folder with its report and card."""

import shutil
import time
from pathlib import Path

from datasets import IterableDatasetDict

from wbc_hf.data import NO_LABEL, Leucocytes, leaked_test_images, load_leucocytes, with_painted, with_unlabelled
from wbc_hf.distributed import on_first_process
from wbc_hf.evaluation import EvaluatedSet, format_metrics, render_card
from wbc_hf.files import write_json
from wbc_hf.hub import copy_notice, push_folder
from wbc_hf.inference import Predictor, evaluate_predictor
from wbc_hf.manifest import Manifest
from wbc_hf.memory import keep_freed_memory
from wbc_hf.modeling import freeze
from wbc_hf.safe_text import say
from wbc_hf.training.arguments import Arguments, DataArguments, LeucocyteTrainingArguments, ModelArguments
from wbc_hf.training.batch_norm import settle_batch_norm
from wbc_hf.training.calibrate import calibrate, calibrate_on_left_out
from wbc_hf.training.checkpoints import has_ended, last_complete_checkpoint, train_to_end
from wbc_hf.training.components import build_caches, build_network, build_trainer
from wbc_hf.training.distillation import Teacher, compare_with_teacher
from wbc_hf.training.preflight import check_arguments
from wbc_hf.training.record import make_record, print_audit, title
from wbc_hf.training.run_folder import CACHE_FOLDER, SEARCH_FOLDER, check_same_run, open_folder, run_manifest
from wbc_hf.training.trainer import LeucocyteTrainer


def run(data: DataArguments, model: ModelArguments, training: LeucocyteTrainingArguments) -> Path:
    """Fine-tune a model, calibrate it, evaluate it on the test split, write its folder, and publish it if asked.

    Returns:
        The folder: an ordinary transformers model with `metrics.json`, `run.json`, `predictions.csv`, `figures/` and
        a card as `README.md`; with `search_only`, what a search writes alone.

    Raises:
        WbcError: The arguments, the data or the folder cannot be used.
        DivergedError: The loss is not finite any more. The folder keeps the checkpoints before.
    """
    started = time.time()
    check_arguments(Arguments(data, model, training))
    keep_freed_memory()
    folder = Path(training.output_dir)
    # Before the images, which take longer to load.
    on_first_process(lambda: open_folder(folder, training.resume))
    if training.search:
        open_folder(folder / SEARCH_FOLDER, training.resume)
    network, processor = build_network(model, training)
    teacher = None if model.teacher is None else Teacher.load(model)
    with training.main_process_first(desc="loading the images"):
        leucocytes = load_leucocytes(
            data.dataset, streaming=data.streaming, other_classes=data.other_classes, seed=data.split_seed
        )
        if teacher is not None:
            teacher.check_data(leucocytes)
        train_on = with_painted(leucocytes, data.painted, data.split_seed) if data.painted else leucocytes
        if data.unlabelled:
            train_on = with_unlabelled(train_on, data.unlabelled)
    search_record = None
    if training.search:
        # Optuna is needed for a search only.
        from wbc_hf.training.search import search

        (data, model, training), search_record = search(Arguments(data, model, training), train_on, network, processor)
        if training.search_only:
            return folder
        freeze(network, model.freeze)
    arguments = Arguments(data, model, training)
    taught_by = None if teacher is None else teacher.predictor.identity.version
    manifest = run_manifest(folder, arguments, train_on, taught_by)
    checkpoint = on_first_process(lambda: _checkpoint_to_resume(manifest))
    if checkpoint is None and not training.search and training.process_index == 0:
        print_audit(leucocytes)
    caches = None
    if checkpoint is None or not has_ended(checkpoint):
        caches = build_caches(train_on, network, processor, data, model, training, teacher)
    # Not before: where a new run cannot begin, its folder stays free for other arguments.
    on_first_process(manifest.write)
    trainer = build_trainer(train_on, network, processor, data, training, caches, teacher)
    train_to_end(trainer, checkpoint)
    trainer.check_weights()
    trainer.accelerator.wait_for_everyone()
    # The other processes are done: an error from here on leaves none of them waiting.
    if trainer.is_world_process_zero():
        shutil.rmtree(folder / CACHE_FOLDER, ignore_errors=True)
        record, metrics = _save_and_evaluate(trainer, arguments, leucocytes, folder, teacher)
        if data.unlabelled:
            record["teacher"]["unlabelled"] = list(train_on["train"]["label"]).count(NO_LABEL)
        record["seconds"] = round(time.time() - started, 1)
        if search_record is not None:
            record["search"] = search_record
        write_json(folder / "run.json", record)
        (folder / "README.md").write_text(render_card(record, metrics, training.hub_model_id), encoding="utf-8")
        say(f"\n{format_metrics(metrics)}\n\nThe model, its report and its card are in {folder}")
        if training.publish and training.hub_model_id:
            say(f"Published: {push_folder(folder, training.hub_model_id, private=bool(training.hub_private_repo))}")
    return folder


def _checkpoint_to_resume(manifest: Manifest) -> Path | None:
    check_same_run(manifest)
    return last_complete_checkpoint(manifest.path.parent) if manifest.exists() else None


def _save_and_evaluate(
    trainer: LeucocyteTrainer,
    arguments: Arguments,
    leucocytes: Leucocytes | IterableDatasetDict,
    folder: Path,
    teacher: Teacher | None,
) -> tuple[dict, dict]:
    """Save the model, calibrate it, and evaluate it on the test split as it was saved; its record and its metrics."""
    data, model, training = arguments
    network, taught = trainer.accelerator.unwrap_model(trainer.model), {}
    # Not of several laboratories: their augmentation is for images that neither training nor validation shows.
    settles = model.from_scratch and model.freeze == "none" and data.laboratories == "one"
    if settles and isinstance(leucocytes, Leucocytes):
        settle_batch_norm(network, trainer.processing_class, leucocytes, training.seed)
    if teacher is not None:
        scores = compare_with_teacher(
            network, trainer.processing_class, teacher, leucocytes["validation"], str(folder)
        )
        identity = teacher.predictor.identity
        taught = {"name": identity.name, "version": identity.version} | scores
    network.save_pretrained(folder)
    trainer.processing_class.save_pretrained(folder)
    has_notice = not model.from_scratch and copy_notice(Path(str(trainer.model.name_or_path)), folder)
    calibrate(folder, leucocytes, title(leucocytes, " ".join(data.dataset)), training.seed)
    unseen = calibrate_on_left_out(folder, data.left_out_runs, data.other_classes) if data.left_out else None
    # An export in the folder would be of an earlier run.
    predictor = Predictor.from_pretrained(folder, fresh=True)
    leaked = leaked_test_images(leucocytes) if isinstance(leucocytes, Leucocytes) else None
    fingerprint = leucocytes.provenance.fingerprint if isinstance(leucocytes, Leucocytes) else None
    metrics = evaluate_predictor(
        predictor,
        leucocytes["test"],
        folder,
        leaked=leaked,
        unseen=unseen,
        log_history=trainer.state.log_history,
        data=EvaluatedSet(" ".join(data.dataset), "test", data.split_seed, fingerprint),
        other=None if teacher is None else teacher.predictor,
    ).metrics
    record = make_record(arguments, leucocytes, trainer, metrics, answered_by=predictor.backend.name)
    return record | {"notice": has_notice} | ({"teacher": taught} if taught else {}), metrics
