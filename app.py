"""Serve a model as a web page. A Hugging Face Space runs this file as it is; `wbc-hf serve` does the same.

python app.py                                   # the default model, or the one WBC_HF_MODEL names
python app.py --model runs/cells --port 8000    # a folder that training wrote
python app.py --model owner/name                # a model on the Hub
python app.py --slides scans/                   # whole slides in a folder of this machine, for every visitor
python app.py --ranges ranges.yaml --references cells/   # the laboratory's own ranges, and cells to compare with
python app.py --types configs/types.toml        # bands, blasts, erythroblasts, named by a person in review
python app.py --store specimens/                # keep specimens: a work list, sign-off, a history
python app.py --store postgresql+psycopg://wbc@db/specimens   # the same for several servers (PGPASSWORD, ~/.pgpass)
WBC_HF_USERS="ana:secret" python app.py --host 0.0.0.0 --auth --root-path /leucocytes   # behind a reverse proxy
"""

from wbc_hf.cli.serve import main

if __name__ == "__main__":
    main()
