"""How boxes of each kind are drawn, and what the kinds are called."""

# Colours that the common colour blindnesses keep apart (Okabe and Ito), and
# a line style each, so that no information is in the colour alone.
STYLES = dict(
    truth=dict(edgecolor='#ffffff', linestyle='-'),
    correct=dict(edgecolor='#56b4e9', linestyle='-'),
    wrong_class=dict(edgecolor='#f0e442', linestyle='--'),
    no_object=dict(edgecolor='#ff8c5a', linestyle=':'),
    missed=dict(edgecolor='#cc79a7', linestyle='-.'),
)
MEANINGS = dict(
    truth='ground truth',
    correct='right class, IoU at least 0.5',
    wrong_class='wrong class, IoU at least 0.5',
    no_object='no object there, or found already',
    missed='object that was not found',
)
# In a few words, where the page explains the rest.
WORDS = dict(
    truth='ground truth',
    correct='right',
    wrong_class='wrong class',
    no_object='no object',
    missed='missed',
)
