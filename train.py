"""Fine-tune a ResNet-50 to classify leucocytes, evaluate it on the test split, and publish it.

# the source study's set and network (needs Kaggle and the Hub)
python train.py --freeze stage2 --output_dir runs/study

# a folder of class sub-folders, without any Hub
python train.py --dataset cells/ --from_scratch --width 0.25 --image_size 112 --output_dir runs/cells

# arguments from a file; what follows it wins
python train.py configs/painted.yaml --num_train_epochs 3

# twenty short trials of hyperparameters first, then the run with the best of them
python train.py --dataset cells/ --freeze stage3 --cached_views 4 --search 20 --output_dir runs/cells

# several GPUs (or `torchrun --nproc_per_node 2 train.py …` for two processes without any)
accelerate launch train.py --dataset cells/ --output_dir runs/cells

# after an interruption: the same command with --resume
"""

from wbc_hf.cli.train import main

if __name__ == "__main__":
    main()
