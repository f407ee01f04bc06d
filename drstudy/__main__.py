"""``python -m drstudy`` is the command ``drstudy``, also where neither make nor the folder of the command is on the path."""

from drstudy.study.cli import main

if __name__ == "__main__":
    main()
