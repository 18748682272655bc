"""``python -m florence2.training.demo``: train the demo model, or go on with it."""

from florence2.training.demo.recipe import main

if __name__ == "__main__":
    main()
