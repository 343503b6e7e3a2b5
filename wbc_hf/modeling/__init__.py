"""The network and what is saved with it: ResNet and image processor, freezing, calibration, export formats."""

from typing import TYPE_CHECKING

from wbc_hf.lazy_names import lazy_names

if TYPE_CHECKING:
    from wbc_hf.modeling.calibration import (
        CALIBRATION_FILE,
        REFERENCES_FILE,
        TARGET_ACCURACY,
        Calibration,
        calibrated_threshold,
        fit_temperature,
        fold_temperature,
        review_threshold,
        softmax,
        undo_temperature,
    )
    from wbc_hf.modeling.export_formats import (
        GRAPH_FILES,
        Check,
        Export,
        ExportFigures,
        find_export,
        find_graph,
    )
    from wbc_hf.modeling.finder_boxes import MULTIPLE, FinderConfig, decode, suppress
    from wbc_hf.modeling.finder_network import FinderNetwork
    from wbc_hf.modeling.graph import InferenceGraph, finder_to_openvino, to_onnx, to_openvino
    from wbc_hf.modeling.graph_names import CROP, FEATURES, LOGITS
    from wbc_hf.modeling.laboratory_distance import MIN_DROP, LaboratoryDistance
    from wbc_hf.modeling.memory_format import training_memory_format
    from wbc_hf.modeling.model_folder import (
        digest_weights,
        load_classifier,
        load_config,
        load_preprocessing,
        load_processor,
        naming_errors,
        summarise_config,
    )
    from wbc_hf.modeling.normalising import Normalise, centre_squares
    from wbc_hf.modeling.out_of_distribution import OUT_OF_DISTRIBUTION_SHARE, OutOfDistributionScore
    from wbc_hf.modeling.preprocessing import Preprocessing, Processor, centre_square, cropped_edge, resized_edge
    from wbc_hf.modeling.resnet import (
        DEFAULT_MODEL,
        FREEZE_DEPTHS,
        build_from_pretrained,
        build_from_scratch,
        build_processor,
        fetch_pretrained,
        freeze,
        frozen_output,
        keep_frozen_in_eval,
        skip_frozen,
    )
    from wbc_hf.modeling.unseen_laboratories import TARGET_ELSEWHERE, LeftOut, recalibrate

__getattr__ = lazy_names(__name__)
