# Faster R-CNN on digits-coco: teacher.py teaches the student of plain.py by ReviewKD, ND and KD, or
# another method:
# python tools/train.py configs/digits/frcnn_r50_r18.py --method robust
_base_ = [
    "../_base_/methods/{{$KD_DET_METHOD:review_nd_kd}}.py",
    "../_base_/digits_models.py",
    "../_base_/digits_coco.py",
]
method = "{{$KD_DET_METHOD:review_nd_kd}}"

fuses = "review" in method
model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    distiller=dict(
        connectors=_base_.review_sizes if fuses else {},
        distill_losses=_base_.nd_sizes if "_nd" in method else {},
    ),
)
optim_wrapper = _base_.fast_connectors if fuses else {}
