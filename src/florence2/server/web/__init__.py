"""What the pages of this package are made of: the sending of their files, and the modules and styles that several of them have.

Each page is a folder beside this one, with files of its own. Its files and those of ``assets`` here are sent from one address, so that
modules import each other by name; of the page's own is ``words.js``, from which ``i18n.js`` takes all words. Knows no page.
"""
