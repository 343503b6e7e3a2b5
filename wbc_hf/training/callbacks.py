"""Progress of a training run: a bar on a terminal, and one line per evaluation."""

import time
from statistics import fmean

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerState


class EvaluationLines(TrainerCallback):
    """Prints one readable line per evaluation, in place of Trainer's dictionaries."""

    def on_train_begin(self, args, state, control, **kwargs):
        # `disable=None`: no bar where the output goes into a file.
        shown = None if state.is_world_process_zero else True
        self._bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", leave=False, disable=shown)
        self._start_counting(state)

    def on_step_end(self, args, state, control, **kwargs):
        self._bar.update()
        # The line needs the training loss up to here, whatever --logging_steps says.
        control.should_log |= control.should_evaluate

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_log |= control.should_evaluate

    def on_evaluate(self, args, state, control, **kwargs):
        metrics = kwargs["metrics"]
        seconds = time.perf_counter() - self._since - metrics["eval_runtime"]
        batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        images = (state.global_step - self._step) * batch
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry and entry["step"] > self._step]
        if state.is_world_process_zero:
            self._bar.write(
                f"epoch {state.epoch:6.2f}   loss {f'{fmean(losses):5.3f}' if losses else '    –'}   "
                f"validation: loss {metrics['eval_loss']:5.3f}  accuracy {metrics['eval_accuracy']:5.3f}  "
                f"macro F1 {metrics['eval_macro_f1']:5.3f}   {images / seconds:5.0f} images/s"
            )
        self._start_counting(state)

    def on_train_end(self, args, state, control, **kwargs):
        self._bar.close()

    def _start_counting(self, state: TrainerState) -> None:
        self._since, self._step = time.perf_counter(), state.global_step
