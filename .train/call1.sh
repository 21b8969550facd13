export PYTHONUNBUFFERED=1
nvidia-smi --query-gpu=name,memory.total --format=csv; nproc
cd .train
small="--pool 2048 --vae-steps 300 --images-steps 200 --clips-steps 200 --rgb-steps 60 --scribble-steps 60"
time timeout 150 python3 train.py --out /tmp/a --compile temporal $small
time timeout 60 python3 sample.py --weights /tmp/a/weights --out $OUT --steps 4 --guidance-steps 2 --warm-up 1 --cool-up 1 --repeats 1
rm -rf /tmp/b; mkdir -p /tmp/b/weights; cp /tmp/a/weights/vae.safetensors /tmp/b/weights/
time timeout 45 python3 train.py --out /tmp/b --compile none --pool 512 --images-steps 60 --clips-steps 60 --rgb-steps 1 --scribble-steps 1
rm -rf /tmp/c
time timeout 170 python3 train.py --out /tmp/c --compile blocks --pool 512 --vae-steps 100 --images-steps 60 --clips-steps 60 --rgb-steps 1 --scribble-steps 1
